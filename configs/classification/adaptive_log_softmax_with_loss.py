loss = dict(type='lossreg.AdaptiveLogSoftmaxWithLoss', in_features=16, n_classes=20, cutoffs=[4, 10])
