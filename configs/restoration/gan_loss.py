loss = dict(type='lossreg.GANLoss', gan_type='vanilla', loss_weight=0.01, real_label_val=1.0, fake_label_val=0)
