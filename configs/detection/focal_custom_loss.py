loss = dict(type='lossreg.FocalCustomLoss', use_sigmoid=True, num_classes=13204, gamma=2.0, alpha=0.25, loss_weight=1.0)
