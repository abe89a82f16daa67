loss = dict(type='lossreg.PretrainFocalLoss')
