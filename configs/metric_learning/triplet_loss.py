loss = dict(type='lossreg.TripletLoss', margin=0.3, loss_weight=1.0)
