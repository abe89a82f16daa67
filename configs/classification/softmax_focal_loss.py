loss = dict(type='lossreg.SoftmaxFocalLoss')
