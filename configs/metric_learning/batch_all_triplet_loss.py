loss = dict(type='lossreg.BatchAllTripletLoss')
