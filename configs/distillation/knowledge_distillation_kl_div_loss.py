loss = dict(type='lossreg.KnowledgeDistillationKLDivLoss', loss_weight=0.25, T=10)
