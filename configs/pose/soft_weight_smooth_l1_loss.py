loss = dict(
    type='lossreg.SoftWeightSmoothL1Loss', use_target_weight=True, supervise_empty=False, beta=1 / 9, loss_weight=0.002
)
