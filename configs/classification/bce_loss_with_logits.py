loss = dict(type='lossreg.BCELossWithLogits')
