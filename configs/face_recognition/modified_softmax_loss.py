loss = dict(type='lossreg.ModifiedSoftmaxLoss', in_features=6, num_classes=10)
