"""What each task and each asset has looked like in its list, from the moment on at which that was asked for.

A client that keeps a copy sees some of these versions, in their order; a test can tell whether it saw any other. A line is
[list, id, what the list shows as JSON, or null: it is gone], in the order in which things happened; first what there is.
"""
from api.assets import list_item
from api.task_views import list_json
from wire.messages import json_bytes


class Versions:
    def __init__(self, tenant):
        self._tenant = tenant
        self._last = {}
        self._lines = []
        tenant.tasks.touched = {task["id"] for task in tenant.tasks}
        tenant.assets.touched = set(tenant.assets.ids())
        self.note()
        tenant.observer = self.note

    def note(self):
        """Looks at what was touched since the last time."""
        tasks, assets = self._tenant.tasks, self._tenant.assets
        if assets.touched:
            tasks.touched.update(task["id"] for task in tasks if task.get("assetID") in assets.touched)
        for of, store, show in (("tasks", tasks, list_json),
                                ("assets", assets, lambda tenant, asset: json_bytes(list_item(tenant, asset)))):
            for key in sorted(store.touched):
                record = store.get(key)
                self._add(of, key, None if record is None else show(self._tenant, record))
            store.touched.clear()

    def _add(self, of, key, shown):
        if self._last.get((of, key)) != shown:
            self._last[of, key] = shown
            self._lines.append(b'["%s",%d,%s]' % (of.encode(), key, shown or b"null"))

    def shown(self):
        """JSON"""
        return b"[%s]" % b",".join(self._lines)

    def end(self):
        self._tenant.tasks.touched = self._tenant.assets.touched = self._tenant.observer = None
