loss = dict(type='lossreg.TripletSemihardLoss')
