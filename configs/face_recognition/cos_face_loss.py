loss = dict(type='lossreg.CosFaceLoss', in_features=6, num_classes=10)
