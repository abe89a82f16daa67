loss = dict(type='lossreg.MPJPEVelocityJointLoss')
