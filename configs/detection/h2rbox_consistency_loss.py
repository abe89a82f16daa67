loss = dict(
    type='lossreg.H2RBoxConsistencyLoss',
    center_loss_cfg=dict(type='lossreg.L1Loss', loss_weight=0.0),
    shape_loss_cfg=dict(type='lossreg.IoULoss', loss_weight=1.0),
    angle_loss_cfg=dict(type='lossreg.L1Loss', loss_weight=1.0),
    loss_weight=0.4,
)
