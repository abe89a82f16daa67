loss = dict(type='lossreg.HuasdorffDisstanceLoss')
