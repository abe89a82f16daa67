loss = dict(type='lossreg.NormFaceLoss', in_features=6, num_classes=10)
