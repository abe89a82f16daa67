loss = dict(type='lossreg.CurricularFaceLoss', in_features=6, num_classes=10)
