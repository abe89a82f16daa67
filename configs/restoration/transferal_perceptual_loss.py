loss = dict(type='lossreg.TransferalPerceptualLoss', loss_weight=0.01, use_attention=False, criterion='mse')
