loss = dict(type='lossreg.BinaryLogisticRegressionLoss')
