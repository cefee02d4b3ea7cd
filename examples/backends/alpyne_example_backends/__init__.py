"""Two back ends for Alpyne's nodes: ``gentle`` runs jobs, ``disk`` keeps objects."""
