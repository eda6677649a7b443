from tests.unit.cloud_controllers.kubelets import cluster

__all__ = ["cluster"]
