loss = dict(type='lossreg.CTCLoss')
