loss = dict(type='lossreg.MultiLabelMarginLoss')
