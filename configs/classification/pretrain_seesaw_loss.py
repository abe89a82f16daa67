loss = dict(type='lossreg.PretrainSeesawLoss', p=0.8, q=2.0, num_classes=1000, loss_weight=1.0)
