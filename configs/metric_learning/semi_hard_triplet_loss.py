loss = dict(type='lossreg.SemiHardTripletLoss')
