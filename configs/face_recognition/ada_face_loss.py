loss = dict(type='lossreg.AdaFaceLoss', in_features=6, num_classes=10)
