loss = dict(type='lossreg.PANEmbLossV1')
