loss = dict(type='lossreg.TripletMarginWithDistanceLoss')
