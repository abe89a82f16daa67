loss = dict(
    type='lossreg.OksLoss',
    metainfo=dict(
        sigmas=[
            0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087,
            0.089, 0.089,
        ],
    ),
    loss_weight=30.0,
)  # fmt: skip
