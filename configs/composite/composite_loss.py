loss = dict(
    type='lossreg.CompositeLoss',
    losses=dict(
        ce=dict(
            loss=dict(type='lossreg.CrossEntropyLoss', label_smoothing=0.1),
            inputs=dict(cls_score='student', label='label'),
        ),
        triplet=dict(
            loss=dict(type='lossreg.TripletLoss'),
            inputs=dict(inputs='embedding', targets='label'),
            weight='triplet_weight',
        ),
    ),
    penalties=dict(decay=dict(loss=dict(type='lossreg.L2Penalty'), inputs=['kernel'], weight=1e-4)),
)
