loss = dict(type='lossreg.InfoNCELoss', temperature=0.05)
