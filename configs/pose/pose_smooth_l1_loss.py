loss = dict(type='lossreg.PoseSmoothL1Loss', use_target_weight=True)
