loss = dict(type='lossreg.SubCenterArcFaceLoss', in_features=6, num_classes=10)
