loss = dict(type='lossreg.BCEWithLogitsLoss')
