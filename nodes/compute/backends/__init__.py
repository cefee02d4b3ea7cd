"""Back ends: what runs a job. ``base`` is the seam, ``process`` the embedded one."""
