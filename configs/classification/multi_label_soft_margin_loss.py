loss = dict(type='lossreg.MultiLabelSoftMarginLoss')
