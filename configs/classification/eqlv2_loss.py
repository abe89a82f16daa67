loss = dict(type='lossreg.EQLV2Loss', num_classes=1203)
