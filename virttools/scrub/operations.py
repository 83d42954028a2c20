"""Values: the scrub operations, by the names virt-sysprep has for them, and ours for what it misses.

Left out of virt-sysprep's: customize and script (they run programs), fs-uuids and lvm-uuids (a tree has no
block devices), flag-reconfiguration (a tree does not boot).
"""

from dataclasses import dataclass

from virttools.host.facts import Kind
from virttools.scrub.findings import Deed

_ANYTHING = frozenset(Kind)
_NO_FOLDERS = _ANYTHING - {Kind.DIRECTORY}
_FILES = frozenset({Kind.FILE})


@dataclass(frozen=True, slots=True)
class Rule:
    """What is done to each path that a glob matches (scrub.globs) and that is of one of these kinds.

    A glob that starts with "~/" is looked for in every home. lines: what marks the lines that DROP drops.
    """

    deed: Deed
    globs: tuple[str, ...]
    kinds: frozenset[Kind]
    lines: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """name: as `--operations` takes it. summary: what it does. what: the thing it finds, for messages.

    looks_inside: there is more to it than paths (scrub.lookers).
    """

    name: str
    summary: str
    what: str
    rules: tuple[Rule, ...] = ()
    default: bool = True
    looks_inside: bool = False


def remove(*globs: str) -> Rule:
    """Whatever is there goes, a folder with all it holds."""
    return Rule(Deed.REMOVE, globs, _ANYTHING)


def remove_files(*globs: str) -> Rule:
    """Folders stay: programs expect theirs, with their owners."""
    return Rule(Deed.REMOVE, globs, _NO_FOLDERS)


def empty(*globs: str) -> Rule:
    """The file stays, with its owner and mode: programs write to it only where it is."""
    return Rule(Deed.EMPTY, globs, _FILES)


def drop_lines(lines: str, *globs: str) -> Rule:
    return Rule(Deed.DROP, globs, _FILES, lines)


_IFCFG = "etc/sysconfig/network-scripts/ifcfg-*"

_VIRT_SYSPREP = (
    Operation(
        "abrt-data",
        "Remove the crash reports of ABRT",
        "crash report",
        (remove("var/spool/abrt/*"),),
    ),
    Operation(
        "backup-files",
        "Remove editors' and packages' backup files",
        "backup file",
        tuple(
            remove_files(
                *(f"{folder}/**{end}" for end in ("~", ".bak", ".dpkg-old", ".rpmsave", ".swp"))
            )
            for folder in ("etc", "root", "srv", "tmp", "var")
        ),
    ),
    Operation(
        "bash-history",
        "Remove the histories of bash",
        "shell history",
        (remove("~/.bash_history*", "~/.bash_sessions"),),
    ),
    Operation(
        "blkid-tab",
        "Remove the cache of block devices",
        "list of the host's disks",
        (
            remove_files(
                *("etc/blkid.tab*", "etc/blkid/blkid.tab*", "dev/.blkid.tab*"),
                *("run/blkid.tab*", "run/blkid/*", "var/run/blkid.tab*"),
            ),
        ),
    ),
    Operation(
        "ca-certificates",
        "Remove the certificates and keys of a CA that lives here",
        "certificate of a CA",
        (
            remove_files(
                *("etc/pki/CA/certs/*", "etc/pki/CA/crl/*", "etc/pki/CA/newcerts/*"),
                *("etc/pki/CA/private/*", "etc/pki/tls/private/*"),
            ),
        ),
        default=False,
    ),
    Operation(
        "crash-data",
        "Remove crash dumps and core files",
        "crash dump",
        (
            remove(
                *(
                    "var/crash/*",
                    "var/log/dump/*",
                    "var/lib/systemd/coredump/*",
                    "var/spool/core/*",
                ),
                *("var/lib/systemd/pstore/*", "var/cache/abrt-di/*"),
            ),
        ),
        looks_inside=True,
    ),
    Operation(
        "cron-spool",
        "Remove the users' cron and at jobs",
        "job of cron or at",
        (
            remove_files(
                *("var/spool/cron/**", "var/spool/at/**", "var/spool/atjobs/**"),
                *("var/spool/atspool/**", "var/spool/anacron/*"),
            ),
        ),
    ),
    Operation(
        "dhcp-client-state",
        "Remove the leases of DHCP clients",
        "DHCP lease",
        (
            remove(
                *("var/lib/dhclient/*", "var/lib/dhcp/*", "var/lib/dhcp3/*", "var/lib/dhcpcd/*"),
                *("var/lib/NetworkManager/*.lease", "run/systemd/netif/leases/*"),
            ),
        ),
    ),
    Operation(
        "dhcp-server-state",
        "Remove the leases that a DHCP server gave",
        "DHCP lease",
        (
            remove(
                *("var/lib/dhcpd/*", "var/lib/kea/*", "var/lib/misc/dnsmasq.leases"),
                "var/lib/dnsmasq/*",
            ),
        ),
    ),
    Operation(
        "dovecot-data",
        "Remove the state of Dovecot",
        "state of Dovecot",
        (remove("var/lib/dovecot/*"),),
    ),
    Operation(
        "firewall-rules",
        "Remove the firewall's rules",
        "firewall rules",
        (
            remove_files(
                *("etc/sysconfig/iptables", "etc/sysconfig/ip6tables", "etc/iptables/rules.v?"),
                *("etc/nftables.conf", "etc/firewalld/services/*", "etc/firewalld/zones/*"),
            ),
        ),
        default=False,
    ),
    Operation(
        "ipa-client",
        "Remove the enrolment in a FreeIPA domain",
        "enrolment in FreeIPA",
        (
            remove(
                *("etc/ipa/ca.crt", "etc/ipa/default.conf", "var/lib/ipa-client/pki/*"),
                "var/lib/ipa-client/sysrestore/*",
            ),
        ),
    ),
    Operation(
        "kerberos-data",
        "Remove the database of a Kerberos KDC",
        "data of a Kerberos KDC",
        (
            remove_files(
                *("var/kerberos/krb5kdc/principal*", "var/kerberos/krb5kdc/.k5.*"),
                *("var/lib/krb5kdc/*", "etc/krb5kdc/stash", "etc/krb5kdc/.k5.*"),
            ),
        ),
        default=False,
    ),
    Operation(
        "kerberos-hostkeytab",
        "Remove the host's Kerberos keytab",
        "Kerberos keytab",
        (remove_files("etc/krb5.keytab", "var/lib/krb5/user/*/client.keytab", "etc/**/*.keytab"),),
    ),
    Operation(
        "logfiles",
        "Empty the logs, remove rotated ones",
        "log",
        (
            remove_files(
                *("var/log/**.gz", "var/log/**.xz", "var/log/**.bz2", "var/log/**.zst"),
                *("var/log/**.[0-9]", "var/log/**.[0-9][0-9]", "var/log/**.old"),
                *("var/log/**-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]", "var/log/journal/**"),
                *("root/install.log*", "root/anaconda-ks.cfg", "root/original-ks.cfg"),
                *("root/initial-setup-ks.cfg", "root/anaconda-post.log"),
            ),
            empty("var/log/**", "var/named/data/named.run"),
        ),
    ),
    Operation(
        "lvm-system-devices",
        "Remove LVM's list of the host's disks",
        "list of the host's disks",
        (remove_files("etc/lvm/devices/system.devices*", "etc/lvm/backup/*", "etc/lvm/archive/*"),),
    ),
    Operation(
        "machine-id",
        "Empty the machine id, remove its copies",
        "machine id",
        (
            empty("etc/machine-id"),
            Rule(Deed.REMOVE, ("var/lib/dbus/machine-id", "etc/machine-info"), _FILES),
        ),
    ),
    Operation(
        "mail-spool",
        "Remove mail that waits: mailboxes and queues",
        "mail",
        (
            remove("var/mail/*", "var/spool/mail/*"),
            remove_files(
                *("var/spool/mqueue/**", "var/spool/mqueue-client/**", "var/spool/clientmqueue/**"),
                *("var/spool/exim/input/**", "var/spool/exim/msglog/**"),
                *("var/spool/exim4/input/**", "var/spool/exim4/msglog/**"),
                *(
                    f"var/spool/postfix/{queue}/**"
                    for queue in (
                        *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold"),
                        *("incoming", "maildrop", "saved", "trace"),
                    )
                ),
            ),
        ),
    ),
    Operation(
        "net-hostname",
        "Drop the host name from network scripts",
        "host name",
        (drop_lines(r"\s*(?:DHCP_)?HOSTNAME=", _IFCFG, "etc/sysconfig/network"),),
    ),
    Operation(
        "net-hwaddr",
        "Drop hardware addresses from network scripts",
        "hardware address",
        (drop_lines(r"\s*(?:HWADDR|MACADDR)=", _IFCFG),),
    ),
    Operation(
        "net-nmconn",
        "Remove NetworkManager's connections and keys",
        "connection of NetworkManager",
        (
            remove(
                *("etc/NetworkManager/system-connections/*", "run/NetworkManager/*"),
                *("var/lib/NetworkManager/secret_key", "var/lib/NetworkManager/seen-bssids"),
                *("var/lib/NetworkManager/timestamps", "var/lib/NetworkManager/*.nmmeta"),
                "etc/netplan/90-NM-*",
            ),
        ),
    ),
    Operation(
        "pacct-log",
        "Empty the log of processes, remove rotated ones",
        "log of processes",
        (
            remove_files("var/account/*.[0-9]*", "var/log/account/*.[0-9]*"),
            empty(
                "var/account/pacct",
                "var/log/account/pacct",
                "var/account/savacct",
                "var/account/usracct",
            ),
        ),
    ),
    Operation(
        "package-manager-cache",
        "Remove what package managers keep",
        "cache of a package manager",
        (
            remove_files(
                *("var/cache/apt/**", "var/lib/apt/lists/**", "var/cache/dnf/**"),
                *("var/cache/libdnf5/**", "var/cache/yum/**", "var/cache/zypp/**"),
                *("var/cache/pacman/pkg/**", "var/cache/apk/**", "var/cache/PackageKit/**"),
                *(
                    "var/cache/ldconfig/aux-cache",
                    "var/lib/dpkg/*-old",
                ),
            ),
        ),
    ),
    Operation(
        "pam-data",
        "Remove the run-time data of PAM modules",
        "data of PAM",
        (
            remove(
                *(
                    f"{run}/{name}/*"
                    for run in ("run", "var/run")
                    for name in ("console", "faillock", "sepermit")
                ),
                "var/lib/pam_tally/*",
            ),
        ),
    ),
    Operation(
        "passwd-backups",
        "Remove the backups of the account files",
        "backup of accounts",
        (
            remove_files(
                *(
                    f"etc/{name}-"
                    for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
                ),
                *(f"var/backups/{name}.bak*" for name in ("passwd", "shadow", "group", "gshadow")),
            ),
        ),
    ),
    Operation(
        "puppet-data-log",
        "Remove the data and logs of Puppet",
        "data of Puppet",
        (
            remove(
                *("var/log/puppet/*", "var/lib/puppet/*/*", "var/lib/puppet/*.*"),
                *("etc/puppetlabs/puppet/ssl/*", "var/cache/puppet/*"),
            ),
        ),
    ),
    Operation(
        "rh-subscription-manager",
        "Remove the subscription to Red Hat",
        "subscription to Red Hat",
        (remove("etc/pki/consumer/*", "etc/pki/entitlement/*", "var/lib/rhsm/*"),),
    ),
    Operation(
        "rhn-systemid",
        "Remove the system id of RHN",
        "system id of RHN",
        (remove_files("etc/sysconfig/rhn/systemid", "etc/sysconfig/rhn/osad-auth.conf"),),
    ),
    Operation(
        "rpm-db",
        "Remove the host's locks on the RPM database",
        "lock on the RPM database",
        (remove_files("var/lib/rpm/__db.*", "usr/lib/sysimage/rpm/__db.*"),),
    ),
    Operation(
        "samba-db-log",
        "Remove the databases and logs of Samba",
        "data of Samba",
        (
            remove_files(
                *("var/lib/samba/**.tdb", "var/lib/samba/**.ldb", "var/lib/samba/private/**"),
                *("var/cache/samba/**.tdb", "etc/samba/*.tdb", "etc/samba/smbpasswd"),
                "var/log/samba/**",
            ),
        ),
    ),
    Operation(
        "smolt-uuid",
        "Remove the hardware id of Smolt",
        "hardware id",
        (remove_files("etc/sysconfig/hw-uuid", "etc/smolt/uuid", "etc/smolt/hw-uuid"),),
    ),
    Operation(
        "ssh-hostkeys",
        "Remove the host keys of SSH servers",
        "ssh host key",
        (
            remove_files(
                *(
                    "etc/ssh/*_host_*",
                    "etc/ssh/ssh_host_*",
                    "etc/ssh_host_*",
                    "etc/tinyssh/sshkeydir/*",
                ),
                *("etc/dropbear/*_host_key", "etc/dropbear-initramfs/*_host_key"),
            ),
        ),
    ),
    Operation(
        "ssh-userdir",
        "Remove the users' .ssh folders",
        "ssh folder of a user",
        (remove("~/.ssh", "~/.dropbear"),),
    ),
    Operation(
        "sssd-db-log",
        "Remove the databases and logs of SSSD",
        "data of SSSD",
        (
            remove(
                *("var/log/sssd/*", "var/lib/sss/db/*", "var/lib/sss/mc/*"),
                *("var/lib/sss/secrets/*", "var/lib/sss/pubconf/*"),
            ),
        ),
    ),
    Operation(
        "tmp-files",
        "Remove temporary files",
        "temporary file",
        (remove("tmp/*", "var/tmp/*", "usr/tmp/*"),),
    ),
    Operation(
        "udev-persistent-net",
        "Remove udev's names for the host's network cards",
        "hardware address",
        (
            remove_files(
                "etc/udev/rules.d/70-persistent-net.rules",
                "etc/udev/rules.d/70-persistent-cd.rules",
            ),
        ),
    ),
    Operation(
        "user-account",
        "Drop the accounts of people (uid 1000 to 59999), remove their homes",
        "account",
        default=False,
        looks_inside=True,
    ),
    Operation(
        "utmp",
        "Empty the lists of who is and was logged in",
        "list of logins",
        (
            remove_files("var/log/wtmp[-.]*", "var/log/btmp[-.]*", "var/log/lastlog[-.]*"),
            empty(
                *("run/utmp", "var/run/utmp", "var/log/wtmp", "var/log/btmp", "var/log/lastlog"),
                *("var/log/faillog", "var/log/tallylog", "var/lib/wtmpdb/wtmp.db"),
                *("var/lib/lastlog/lastlog2.db",),
            ),
        ),
    ),
    Operation(
        "yum-uuid",
        "Remove the id that YUM gave the host",
        "id of the host",
        (remove_files("var/lib/yum/uuid", "var/lib/dnf/countme*"),),
    ),
    Operation(
        "zsh-history",
        "Remove the histories of zsh",
        "shell history",
        (remove("~/.zsh_history*", "~/.zhistory*", "~/.histfile", "~/.zsh_sessions"),),
    ),
)

_OURS = (
    Operation(
        "cloud-init",
        "Remove what cloud-init knows of the host",
        "state of cloud-init",
        (
            remove("var/lib/cloud/*", "run/cloud-init/*"),
            remove_files(
                *("etc/cloud/cloud.cfg.d/*-installer.cfg", "etc/cloud/ds-identify.cfg"),
                *("etc/netplan/50-cloud-init.yaml", "etc/network/interfaces.d/50-cloud-init*"),
                "etc/sudoers.d/90-cloud-init-users",
            ),
        ),
    ),
    Operation(
        "iscsi",
        "Remove the iSCSI initiator's name and secrets",
        "name or secret of iSCSI",
        (
            remove_files(
                *("etc/iscsi/initiatorname.iscsi", "etc/iscsi/iscsid.conf", "etc/nvme/hostid"),
                *("etc/iscsi/nodes/**", "var/lib/iscsi/**", "etc/nvme/hostnqn"),
            ),
        ),
    ),
    Operation(
        "network-secrets",
        "Remove the secrets of wireless networks, modems and tunnels",
        "secret of a network",
        (
            remove_files(
                *("etc/wpa_supplicant/*.conf", "etc/wpa_supplicant.conf", "var/lib/iwd/*"),
                *("etc/ppp/*-secrets", "etc/ipsec.secrets", "etc/ipsec.d/*.secrets"),
                *("etc/ipsec.d/private/*", "etc/swanctl/private/*", "etc/swanctl/rsa/*"),
                *("etc/openvpn/**.key", "etc/openvpn/**auth*.txt", "var/lib/tor/**secret*"),
                *("etc/tinc/**/rsa_key.priv", "etc/tinc/**/ed25519_key.priv"),
            ),
        ),
    ),
    Operation(
        "other-domains",
        "Remove the names and addresses of the machine's other domains, and of the host",
        "name of another domain",
        looks_inside=True,
    ),
    Operation(
        "password-hashes",
        "Lock each password that the manifest does not declare",
        "password hash",
        (
            empty("etc/security/opasswd", "**/etc/security/opasswd"),
            remove_files("etc/**.htdigest", "etc/**htpasswd*", "etc/sasldb2", "etc/exim4/passwd"),
        ),
        looks_inside=True,
    ),
    Operation(
        "random-seed",
        "Remove random seeds and the key of systemd's credentials",
        "random seed",
        (
            remove_files(
                *("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"),
                *("var/lib/random-seed", "var/lib/urandom/random-seed", "var/run/random-seed"),
                *("var/spool/exim4/gnutls-params*", "etc/credstore*/**", "boot/**random-seed"),
            ),
        ),
    ),
    Operation(
        "service-credentials",
        "Remove the passwords that services keep in files of their own",
        "password of a service",
        (
            remove_files(
                *("etc/mysql/debian.cnf", "etc/fetchmailrc", "etc/msmtprc"),
                *("etc/postfix/sasl_passwd*", "etc/exim4/passwd.client", "etc/ssmtp/revaliases"),
                *("etc/rndc.key", "etc/bind/rndc.key", "etc/bind/*.key", "etc/bind/K*.private"),
                *("etc/ldap.secret", "etc/pam_ldap.secret", "etc/libnss-ldap.secret"),
                *("etc/libpam-ldapd.secret", "etc/apt/auth.conf", "etc/apt/auth.conf.d/*"),
                *(
                    "var/cache/debconf/passwords.dat*",
                    "etc/davfs2/secrets",
                    "etc/cifs-credentials*",
                ),
                *(
                    "etc/rsyncd.secrets",
                    "etc/sogo/*.secret",
                    "etc/docker/key.json",
                    "etc/munge/*.key",
                ),
                *(
                    "etc/letsencrypt/accounts/**",
                    "etc/letsencrypt/archive/**",
                    "etc/letsencrypt/keys/**",
                ),
                *("var/lib/acme/**/key", "var/lib/dehydrated/accounts/**", "etc/opendkim/keys/**"),
                *(
                    "etc/kubernetes/*.conf",
                    "etc/kubernetes/pki/**.key",
                    "etc/pki/dovecot/private/*",
                ),
            ),
        ),
    ),
    Operation(
        "tls-private-keys",
        "Remove private keys: those of /etc/ssl, and each key file that holds one",
        "private key",
        (
            remove_files(
                *("etc/ssl/private/**", "etc/pki/tls/private/**", "etc/dovecot/private/**"),
                *("etc/**.p12", "etc/**.pfx", "etc/**.jks", "etc/**.keystore"),
            ),
        ),
        looks_inside=True,
    ),
    Operation(
        "tool-credentials",
        "Remove the passwords and tokens that tools keep in homes",
        "credentials of a tool",
        (
            remove(
                *(
                    "~/.netrc",
                    "~/_netrc",
                    "~/.authinfo*",
                    "~/.pgpass",
                    "~/.my.cnf",
                    "~/.mylogin.cnf",
                ),
                *(
                    "~/.git-credentials",
                    "~/.config/git/credentials",
                    "~/.config/gh",
                    "~/.config/hub",
                ),
                *(
                    "~/.config/glab-cli",
                    "~/.docker/config.json",
                    "~/.dockercfg",
                    "~/.config/containers",
                ),
                *(
                    "~/.aws",
                    "~/.azure",
                    "~/.config/gcloud",
                    "~/.boto",
                    "~/.s3cfg",
                    "~/.kube",
                    "~/.helm",
                ),
                *(
                    "~/.config/doctl",
                    "~/.config/hcloud",
                    "~/.config/rclone",
                    "~/.oci",
                    "~/.terraformrc",
                ),
                *("~/.terraform.d/credentials*", "~/.vault-token", "~/.gnupg", "~/.password-store"),
                *(
                    "~/.npmrc",
                    "~/.yarnrc*",
                    "~/.pypirc",
                    "~/.config/pip",
                    "~/.pip",
                    "~/.gem/credentials",
                ),
                *("~/.cargo/credentials*", "~/.composer/auth.json", "~/.config/composer/auth.json"),
                *("~/.m2/settings*.xml", "~/.gradle/gradle.properties", "~/.nuget/NuGet"),
                *(
                    "~/.cache/huggingface/token",
                    "~/.huggingface/token",
                    "~/.config/op",
                    "~/.config/age",
                ),
                *("~/.fetchmailrc", "~/.msmtprc", "~/.mbsyncrc", "~/.muttrc", "~/.smbcredentials"),
                *(
                    "~/.config/sops",
                    "~/.local/share/keyrings",
                    "~/.subversion/auth",
                    "~/.vnc/passwd",
                ),
                *(
                    "~/.Xauthority",
                    "~/.ICEauthority",
                    "~/.google_authenticator",
                    "~/.fly",
                    "~/.heroku",
                ),
            ),
        ),
    ),
    Operation(
        "tool-histories",
        "Remove the histories of shells and tools",
        "history of a tool",
        (
            remove(
                *(
                    "~/.ash_history",
                    "~/.sh_history",
                    "~/.ksh_history",
                    "~/.mksh_history",
                    "~/.history",
                ),
                *(
                    "~/.tcsh_history",
                    "~/.local/share/fish/fish_history",
                    "~/.config/fish/fish_history",
                ),
                *("~/.python_history", "~/.ipython/**/history.sqlite*", "~/.node_repl_history"),
                *(
                    "~/.mysql_history*",
                    "~/.mariadb_history",
                    "~/.psql_history*",
                    "~/.sqlite_history",
                ),
                *("~/.rediscli_history", "~/.dbshell", "~/.mongodb", "~/.mongosh"),
                *(
                    "~/.php_history",
                    "~/.irb_history",
                    "~/.pry_history",
                    "~/.irb-history",
                    "~/.ghci_history",
                ),
                *("~/.lesshst", "~/.local/state/lesshst", "~/.viminfo*", "~/.vim/.netrwhist"),
                *("~/.local/state/nvim", "~/.local/share/nvim/shada", "~/.nano/search_history"),
                *(
                    "~/.local/share/nano/search_history",
                    "~/.wget-hsts",
                    "~/.lftp",
                    "~/.local/share/lftp",
                ),
                *(
                    "~/.gdb_history",
                    "~/.Rhistory",
                    "~/.octave_hist",
                    "~/.guile_history",
                    "~/.erlang.history",
                ),
                *("~/.sqlcmd_history", "~/.clickhouse-client-history", "~/.cqlsh_history"),
                *("~/.local/share/recently-used.xbel", "~/.recently-used*", "~/.units_history"),
            ),
        ),
    ),
    Operation(
        "wireguard",
        "Remove the keys of WireGuard",
        "key of WireGuard",
        (remove_files("etc/wireguard/**", "etc/systemd/network/*.netdev.key"),),
    ),
)

OPERATIONS: tuple[Operation, ...] = tuple(
    sorted(_VIRT_SYSPREP + _OURS, key=lambda operation: operation.name)
)
"""All there are, by name."""

BY_NAME: dict[str, Operation] = {operation.name: operation for operation in OPERATIONS}
