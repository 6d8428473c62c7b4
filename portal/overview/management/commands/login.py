from portal.client.command_line import login_parser
from portal.overview.management.client_command import ClientCommand


class Command(ClientCommand):
    help = "Get a token of a portal: you say yes in a browser, on any device."
    parser = staticmethod(login_parser)
