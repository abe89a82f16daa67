loss = dict(type='lossreg.SphereFaceLoss', in_features=6, num_classes=10)
