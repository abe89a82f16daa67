loss = dict(type='lossreg.ContrastiveRepresentationLoss')
