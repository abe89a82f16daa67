loss = dict(type='lossreg.ChamferDistance', mode='l1', reduction='none', loss_dst_weight=10.0)
