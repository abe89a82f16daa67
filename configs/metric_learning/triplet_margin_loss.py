loss = dict(type='lossreg.TripletMarginLoss')
