loss = dict(type='lossreg.SwAVLoss', feat_dim=16, num_prototypes=30)
