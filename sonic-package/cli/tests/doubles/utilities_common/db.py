"""The databases that SONiC's commands pass to their plugins."""

from swsscommon.swsscommon import ConfigDBConnector, SonicV2Connector


class Db:
    def __init__(self):
        self.cfgdb = ConfigDBConnector()
        self.cfgdb.connect()
        self.db = SonicV2Connector(host="127.0.0.1")
        for name in self.db.get_db_list():
            self.db.connect(name)
