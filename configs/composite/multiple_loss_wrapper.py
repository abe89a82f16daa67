loss = dict(
    type='lossreg.MultipleLossWrapper',
    losses=[
        dict(type='lossreg.PoseBCELoss', use_target_weight=True),
        dict(type='lossreg.JSDiscretLoss', use_target_weight=True),
    ],
)
