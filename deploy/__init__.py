"""The shop on Kubernetes: what `make deploy`, `make undeploy`, `make backup` and `make restore` do.

terminal      what the person at the terminal reads, and how long each step took
commands      docker, kind and kubectl, each failure as one line
target        which cluster is meant, as the environment says
preflight     whether this machine can do it
cluster       the kind cluster
images        built, pulled, brought to the nodes
credentials   secrets and certificates
manifests     k8s/ as the API server shall have it
rollout       what is applied in which order, and whether it comes up
shop          the shop behind the cluster's network policies: the catalogue, the audit
backup        the databases with their secrets, out of a cluster and into another
"""
