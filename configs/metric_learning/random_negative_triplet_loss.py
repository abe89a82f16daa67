loss = dict(type='lossreg.RandomNegativeTripletLoss')
