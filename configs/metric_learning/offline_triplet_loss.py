loss = dict(type='lossreg.OfflineTripletLoss')
