loss = dict(type='lossreg.ArcFaceLoss', in_features=6, num_classes=10)
