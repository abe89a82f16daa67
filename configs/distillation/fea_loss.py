loss = dict(type='lossreg.FeaLoss', name='loss_fea', use_this=True, student_channels=8, teacher_channels=12)
