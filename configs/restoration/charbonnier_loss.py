loss = dict(type='lossreg.CharbonnierLoss', eps=1e-9)
